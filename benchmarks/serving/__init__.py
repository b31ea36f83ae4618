"""How fast `stnkit serve` answers, beside other servers and beside the session that it runs."""
