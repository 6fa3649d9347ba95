"""The VideoSegmenter interface and the parts that several methods reuse."""
