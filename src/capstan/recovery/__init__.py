"""From tape to a target: plan, engine, verification and the rebuild of the catalog."""
