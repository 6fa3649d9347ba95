"""Files and generated video to Clip."""
