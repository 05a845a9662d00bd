"""ImpChat-Mobile: the phone app on Flet. The views know Flet; the models behind them and the core do not."""
