"""Who may do what, how often, and in which language the answer is."""
