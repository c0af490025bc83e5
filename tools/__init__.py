"""What makes the documents: references from the code, and the site. Not part of the package."""
