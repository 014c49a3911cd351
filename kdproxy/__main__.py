"""`python -m kdproxy` is the `kdproxy` command."""

from kdproxy.cli.main import main

if __name__ == "__main__":
    main()
