"""From files and arrays to the tensors of the model: demux, chunk plan, pictures, sound, text.

The folder is flat and self-contained: Transformers copies its files side by side into a Hub folder.
"""
