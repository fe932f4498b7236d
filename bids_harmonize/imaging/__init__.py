"""Images in and out, and what is found in them: scale, masks, tissues, slices."""
