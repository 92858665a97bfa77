"""Contract suites and test doubles, public so that plugin authors can use them."""
