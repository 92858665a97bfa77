"""Settings of a home; read here and handed down, never looked up from below."""
