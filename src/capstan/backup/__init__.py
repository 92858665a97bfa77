"""From a source to tape: the source port, the plan, the pipeline and the engine."""
