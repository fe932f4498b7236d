"""Finding the brain of a head scan, whatever its contrast, by an atlas."""
