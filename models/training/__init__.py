"""Training that can be interrupted and says how its result was made, for any recipe."""
