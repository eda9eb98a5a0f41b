"""How the rows of a table of runs become models, machines, plans and stacks: rules as data, and their interpreter."""
