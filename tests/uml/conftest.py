"""What lies in `guest` runs on the kernel that `test_linux_kernel.py` boots, not here."""

collect_ignore = ["guest"]
