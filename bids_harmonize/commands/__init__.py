"""What a user can ask for, one module each; the only place where steps are put in order."""
