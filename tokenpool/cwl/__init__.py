"""What tokens need to know of the Common Workflow Language: sources, parameters, results; nothing here runs anything."""
