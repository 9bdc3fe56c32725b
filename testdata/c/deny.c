// deny CALL ERRNO COMMAND [ARGUMENT...]: runs the command under a filter that refuses it one system call, as containers do.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct number {
    const char *name;
    unsigned number;
};

static const struct number calls[] = {{"bpf", SYS_bpf}, {"perf_event_open", SYS_perf_event_open}, {NULL, 0}};
static const struct number errors[] = {{"EPERM", EPERM}, {"EACCES", EACCES}, {"ENOSYS", ENOSYS}, {NULL, 0}};

static unsigned find(const struct number *table, const char *name) {
    while (table->name && strcmp(table->name, name))
        table++;
    return table->number;
}

int main(int argc, char **argv) {
    unsigned call = argc > 3 ? find(calls, argv[1]) : 0, error = argc > 3 ? find(errors, argv[2]) : 0;
    if (!call || !error) {
        fputs("usage: deny bpf|perf_event_open EPERM|EACCES|ENOSYS COMMAND [ARGUMENT...]\n", stderr);
        return 2;
    }
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("seccomp");
        return 2;
    }
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}
