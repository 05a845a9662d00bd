"""The entry point of ImpChat-Mobile for `flet run` and `flet build`."""

from impchat_mobile.launch import run

if __name__ == "__main__":
    run()
