"""Messages about jobs: who gets which, and their delivery."""
