"""What all pages share: the page itself, pictures and numbers."""
