#pragma once

enum class Kind {
	map,
	program,
	link,
	other
};

// Of which kind the kernel object behind a descriptor is, by /proc/self/fd as bpftool does it (its common.c, get_fd_type):
// BPF_OBJ_GET_INFO_BY_FD answers for every kind, and does not say for which.
Kind KindOf(int fd);
