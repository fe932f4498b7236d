"""What is made of results: tables, figures, pages."""
