"""SAM 2: objects in images and videos from clicks, boxes and masks."""
