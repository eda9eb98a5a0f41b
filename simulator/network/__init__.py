"""The network as a resource: topologies, routes, sharing of links, placement, collectives and jitter."""
