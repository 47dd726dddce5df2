"""`blacktree`, and `python -m blacktree`."""


def main() -> None:
    """Run the program. Signals first: what it is made of is imported for a while."""
    from blacktree.cli.early import leave_in_order_from_now_on

    leave_in_order_from_now_on()

    from blacktree.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
