"""Speed of the parts, as ratios: `make bench`."""
