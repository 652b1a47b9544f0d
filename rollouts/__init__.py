"""How scored groups come to be: prompts, the engine, tasks, collection."""
