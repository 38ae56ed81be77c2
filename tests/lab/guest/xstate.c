/*
 * Lets User Mode Linux set the floating point registers of its processes on any processor.
 *
 * The host's kernel takes the extended state (XSAVE) only whole, and its size is that of the processor: 11,008 bytes
 * where there is AMX. User Mode Linux 6.1 always hands over the 2,696 bytes of AVX-512 and ends with EFAULT elsewhere:
 * "ptrace set fp regs failed, errno = 14". This library, preloaded into it, appends the rest, which is in its initial
 * state since nothing in a guest is given AMX (arch/x86/kernel/fpu/regset.c, xstateregs_set).
 */
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Intel SDM volume 1, 13.4.2: the header with the bitmap of the components that are not in their initial state. */
#define XSTATE_BV 512
/* The components up to PKRU: those that User Mode Linux keeps. */
#define KEPT 0x3ffULL

static char whole[1 << 16];
static size_t whole_size;

static long real_ptrace(long request, long pid, void *address, void *data)
{
	return syscall(SYS_ptrace, request, pid, address, data);
}

static long set_xstate(long pid, struct iovec *given)
{
	struct iovec all = { whole, sizeof(whole) };

	if (!whole_size) {
		if (real_ptrace(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all) < 0)
			return -1;
		whole_size = all.iov_len;
		memset(whole, 0, sizeof(whole));
	}
	if (given->iov_len >= whole_size)
		return real_ptrace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);
	memcpy(whole, given->iov_base, given->iov_len);
	*(unsigned long long *)(whole + XSTATE_BV) &= KEPT;
	all.iov_len = whole_size;
	return real_ptrace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	long pid, result, word;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, long);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	switch ((long)request) {
	case PTRACE_SETREGSET:
		if ((long)address == NT_X86_XSTATE)
			return set_xstate((int)pid, data);
		break;
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER:
		/* The kernel stores the word where the C library returns it. */
		result = real_ptrace(request, (int)pid, address, &word);
		return result < 0 ? result : word;
	}
	return real_ptrace(request, (int)pid, address, data);
}
