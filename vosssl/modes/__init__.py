"""yaml to objects to engine, one file a mode."""
