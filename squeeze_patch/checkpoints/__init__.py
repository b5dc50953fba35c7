"""Files that hold generators: read, converted, loaded, carried to another family."""
