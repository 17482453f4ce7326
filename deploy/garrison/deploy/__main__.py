"""`python -m garrison.deploy` is `garrison`."""

from garrison.deploy.cli import main

if __name__ == "__main__":
    main()
