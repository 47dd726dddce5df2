"""`python -m blacktree`."""

if __name__ == "__main__":
    from blacktree.cli.early import leave_in_order_from_now_on

    leave_in_order_from_now_on()

    from blacktree.cli.main import main

    main()
