"""The renderer of the procedural faces, split by subject; `render.py` puts the parts together."""
