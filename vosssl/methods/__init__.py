"""One paper, one file: network, objective, segmenter."""
