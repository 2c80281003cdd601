"""What runs containers: how an engine is found, what it is asked, and the small process that asks it."""
