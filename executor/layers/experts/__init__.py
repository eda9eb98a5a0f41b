"""Expert parallelism: routing, dispatch, the experts of a device and their weights."""
