"""The classifier inside other engines. Each module needs the engine that it is named after."""
