"""`python -m edge_distil`, which launchers of many processes need."""

from edge_distil.cli import main

if __name__ == "__main__":
    main()
