"""Floor 0: what machines are: devices, links, nodes, topology, power; specifications, measurements, calibrations."""
