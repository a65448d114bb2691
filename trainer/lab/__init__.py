"""The room below all faces: rights, limits, and the work of each operation."""
