"""What differs between families of image-LLMs, one file per way in which a picture goes in."""
