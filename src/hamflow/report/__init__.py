"""Tables and figures of a preset; pandas and matplotlib are imported only when something is written or drawn."""
