/*
 * Logging in: key files, ssh-agent, then at most one attempt with a password.  Hosts lock accounts
 * after a few failures (ESXi: five), so attempts are counted and a password is never tried twice.
 */
#include "receiver/ssh/connection.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/base/checked.h"
#include "protocol/base/io.h"

enum {
    KEY_ATTEMPTS_MAX = 4, /* sshd's MaxAuthTries is 6, and the password needs one */
    KEY_FILES_MAX = 16,
    AGENT_IDENTITIES_MAX = 64,
    PROMPTS_MAX = 8,
    PROMPT_TEXT_MAX = 256
};

/* What can be told about the answer to one attempt. */
enum outcome { OUTCOME_IN, OUTCOME_REFUSED, OUTCOME_ERROR };

static bool old_library(void)
{
    return libssh2_version(0x010b00) == NULL;
}

/* One line of printable text out of what the host sent. */
static void printable(const char *text, size_t count, char *out, size_t room)
{
    size_t n = 0;

    for (size_t i = 0; i < count && n + 1 < room; i++)
        out[n++] = text[i] >= ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
}

static int secret_room(struct bytes *b, struct err *e)
{
    b->ceiling = SSH_SECRET_BYTES_MAX;
    /* All at once, so that growing leaves no copies behind. */
    return bytes_reserve(b, SSH_SECRET_BYTES_MAX, e) != NULL ? 0 : -1;
}

static void secret_free(struct bytes *b)
{
    if (b->data != NULL)
        explicit_bzero(b->data, b->room);
    bytes_free(b);
}

/* Ask the person, or fail with what was needed. */
static int ask(const struct ssh_options *o, const char *prompt, bool echo, struct bytes *answer,
               struct err *e)
{
    if (secret_room(answer, e) != 0)
        return -1;
    return o->ask(o->context, prompt, echo, answer, e);
}

/* The password, fetched when it is needed and not before. */
static int fetch_secret(struct login *l, struct err *e)
{
    const struct ssh_options *o = l->o;
    char prompt[NAME_TEXT_MAX + 32];

    if (secret_room(&l->secret, e) != 0)
        return -1;
    if (o->secret != NULL)
        return o->secret(o->context, &l->secret, e);
    snprintf(prompt, sizeof prompt, "Password of %s@%s: ", o->user, o->host);
    return ask(o, prompt, false, &l->secret, e);
}

static enum outcome outcome_of(struct login *l, int rc, const char *what, struct err *e)
{
    struct connection *c = l->c;

    if (rc == 0)
        return OUTCOME_IN;
    if (rc == LIBSSH2_ERROR_SOCKET_DISCONNECT) {
        /* A disconnect message, not a broken link: the host has had enough of us. */
        err_set(e, ERR_AUTH, "%s: refused, and the host ended the connection (too many attempts?)",
                what);
        return OUTCOME_ERROR;
    }
    if (c->network_ended || c->network_errno != 0) {
        session_error(c, rc, e, what);
        return OUTCOME_ERROR;
    }
    switch (rc) {
    case LIBSSH2_ERROR_SOCKET_RECV:
    case LIBSSH2_ERROR_SOCKET_SEND:
    case LIBSSH2_ERROR_ALLOC:
        session_error(c, rc, e, what);
        return OUTCOME_ERROR;
    default:
        return OUTCOME_REFUSED;
    }
}

/* Wait on behalf of an attempt; OUTCOME_ERROR ends the login. */
static int pause_login(struct login *l, uint64_t deadline_ms, struct err *e)
{
    return session_wait(l->c, l->o, deadline_ms, e) == 0 ? 0 : err_add(e, "login");
}

static int passphrase_for(const struct ssh_options *o, const struct key_file *k, struct bytes *out,
                          struct err *e)
{
    char prompt[PROMPT_TEXT_MAX];
    char path[160];

    printable(k->path, strlen(k->path), path, sizeof path);
    if (o->ask == NULL)
        return err_set(
            e, ERR_AUTH,
            "key file %s has a passphrase and there is no terminal to ask for it: use ssh-agent",
            path);
    snprintf(prompt, sizeof prompt, "Passphrase of %s: ", path);
    if (ask(o, prompt, false, out, e) != 0)
        return -1;
    return bytes_text(out, e) != NULL ? 0 : -1;
}

static enum outcome try_key(struct login *l, const struct key_file *k, struct err *e)
{
    struct connection *c = l->c;
    const struct ssh_options *o = l->o;
    struct bytes phrase = { 0 };
    uint64_t deadline_ms;
    enum outcome result = OUTCOME_ERROR;
    int rc;

    if (k->encrypted && passphrase_for(o, k, &phrase, e) != 0)
        goto out;
    deadline_ms = io_clock_ms() + o->timeout_ms;
    while ((rc = libssh2_userauth_publickey_fromfile_ex(
                c->session, o->user, (unsigned)strlen(o->user), NULL, k->path,
                (const char *)phrase.data)) == LIBSSH2_ERROR_EAGAIN)
        if (pause_login(l, deadline_ms, e) != 0)
            goto out;
    result = outcome_of(l, rc, "login with a key file", e);
    if (result != OUTCOME_REFUSED)
        goto out;
    l->key_attempts++;
    l->rsa_refused |= k->rsa;
    session_info(o, "key %s: %s", k->path,
                 rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED ? "refused by the host"
                                                           : "cannot be used (wrong passphrase?)");
out:
    secret_free(&phrase);
    return result;
}

/* An identity of ssh-agent is offered when it is one of the keys that the user named, or none is
 * named. */
static bool agent_wanted(const struct libssh2_agent_publickey *identity,
                         const struct key_file *keys, size_t count)
{
    bool named = false;

    for (size_t i = 0; i < count; i++) {
        named |= keys[i].blob != NULL;
        if (keys[i].blob != NULL && keys[i].blob_bytes == identity->blob_len &&
            memcmp(keys[i].blob, identity->blob, identity->blob_len) == 0)
            return true;
    }
    return !named;
}

static bool is_rsa(const struct libssh2_agent_publickey *identity)
{
    static const uint8_t head[] = { 0, 0, 0, 7, 's', 's', 'h', '-', 'r', 's', 'a' };

    return identity->blob_len >= sizeof head && memcmp(identity->blob, head, sizeof head) == 0;
}

static enum outcome try_identity(struct login *l, LIBSSH2_AGENT *agent,
                                 struct libssh2_agent_publickey *identity, struct err *e)
{
    uint64_t deadline_ms = io_clock_ms() + l->o->timeout_ms;
    enum outcome result;
    int rc;

    while ((rc = libssh2_agent_userauth(agent, l->o->user, identity)) == LIBSSH2_ERROR_EAGAIN)
        if (pause_login(l, deadline_ms, e) != 0)
            return OUTCOME_ERROR;
    result = outcome_of(l, rc, "login with ssh-agent", e);
    if (result == OUTCOME_REFUSED) {
        l->key_attempts++;
        l->rsa_refused |= is_rsa(identity);
    }
    return result;
}

static enum outcome try_agent(struct login *l, const struct key_file *keys, size_t count,
                              struct err *e)
{
    LIBSSH2_AGENT *agent = libssh2_agent_init(l->c->session);
    struct libssh2_agent_publickey *identity = NULL;
    enum outcome result = OUTCOME_REFUSED;

    if (agent == NULL || libssh2_agent_connect(agent) != 0 ||
        libssh2_agent_list_identities(agent) != 0)
        goto out;
    for (int i = 0; i < AGENT_IDENTITIES_MAX && result == OUTCOME_REFUSED; i++) {
        if (l->key_attempts >= KEY_ATTEMPTS_MAX ||
            libssh2_agent_get_identity(agent, &identity, identity) != 0)
            break;
        if (agent_wanted(identity, keys, count))
            result = try_identity(l, agent, identity, e);
    }
out:
    if (agent != NULL) {
        libssh2_agent_disconnect(agent);
        libssh2_agent_free(agent);
    }
    return result;
}

/* A copy that libssh2 frees (and wipes, see session.c). */
static void respond(LIBSSH2_USERAUTH_KBDINT_RESPONSE *response, const struct bytes *answer)
{
    response->text = malloc(answer->count + 1);
    response->length = 0;
    if (response->text == NULL)
        return;
    if (answer->count > 0)
        memcpy(response->text, answer->data, answer->count);
    response->text[answer->count] = 0;
    response->length = (unsigned)answer->count;
}

/* One question of the host's: the password, once; else the person. */
static void answer_prompt(struct login *l, const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompt,
                          int prompts, LIBSSH2_USERAUTH_KBDINT_RESPONSE *response)
{
    const struct ssh_options *o = l->o;
    struct bytes answer = { 0 };
    char text[PROMPT_TEXT_MAX];

    if (prompts == 1 && prompt->echo == 0 && !l->secret_used) {
        l->secret_used = true;
        respond(response, &l->secret);
        return;
    }
    l->strange = true;
    printable((const char *)prompt->text, prompt->length, text, sizeof text);
    if (o->ask != NULL && l->callback_failed == 0)
        l->callback_failed = ask(o, text, prompt->echo != 0, &answer, &l->failure);
    respond(response, &answer);
    secret_free(&answer);
}

/* libssh2 gives only the session's abstract pointer, which is the connection. */
static LIBSSH2_USERAUTH_KBDINT_RESPONSE_FUNC(answer_prompts)
{
    struct connection *c = *abstract;
    struct login *l = c->login;

    (void)name;
    (void)name_len;
    (void)instruction;
    (void)instruction_len;
    for (int i = 0; i < num_prompts; i++) {
        if (i < PROMPTS_MAX)
            answer_prompt(l, &prompts[i], num_prompts, &responses[i]);
        else
            respond(&responses[i], &(struct bytes){ 0 });
    }
}

static int interactive_refused(const struct login *l, struct err *e)
{
    if (l->strange && l->o->ask == NULL)
        return err_set(
            e, ERR_AUTH,
            "login refused: the host asks more than a password (keyboard-interactive) and there is "
            "no terminal; use a key");
    return err_set(e, ERR_AUTH,
                   "login refused: wrong password or user, or the account is locked (one "
                   "attempt was made by keyboard-interactive)");
}

static int try_interactive(struct login *l, struct err *e)
{
    struct connection *c = l->c;
    uint64_t deadline_ms = io_clock_ms() + l->o->timeout_ms;
    int rc;

    c->login = l;
    while ((rc = libssh2_userauth_keyboard_interactive_ex(
                c->session, l->o->user, (unsigned)strlen(l->o->user), answer_prompts)) ==
           LIBSSH2_ERROR_EAGAIN) {
        if (l->callback_failed != 0)
            break;
        if (pause_login(l, deadline_ms, e) != 0)
            return -1;
    }
    c->login = NULL;
    if (l->callback_failed != 0) {
        if (e != NULL)
            *e = l->failure;
        return -1;
    }
    switch (outcome_of(l, rc, "login by keyboard-interactive", e)) {
    case OUTCOME_IN:
        return 0;
    case OUTCOME_ERROR:
        return -1;
    case OUTCOME_REFUSED:
        break;
    }
    return interactive_refused(l, e);
}

static int try_password(struct login *l, struct err *e)
{
    struct connection *c = l->c;
    uint64_t deadline_ms = io_clock_ms() + l->o->timeout_ms;
    int rc;

    l->secret_used = true;
    while ((rc = libssh2_userauth_password_ex(
                c->session, l->o->user, (unsigned)strlen(l->o->user), (const char *)l->secret.data,
                (unsigned)l->secret.count, NULL)) == LIBSSH2_ERROR_EAGAIN)
        if (pause_login(l, deadline_ms, e) != 0)
            return -1;
    switch (outcome_of(l, rc, "login by password", e)) {
    case OUTCOME_IN:
        return 0;
    case OUTCOME_ERROR:
        return -1;
    case OUTCOME_REFUSED:
        break;
    }
    if (rc == LIBSSH2_ERROR_PASSWORD_EXPIRED)
        return err_set(e, ERR_AUTH, "login refused: the password has expired");
    return err_set(e, ERR_AUTH,
                   "login refused: wrong password or user, or the account is locked (one "
                   "attempt was made)");
}

/* Is method one of the comma-separated list? */
static bool offered(const char *list, const char *method)
{
    size_t count = strlen(method);

    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, method, count) == 0 && (at[count] == 0 || at[count] == ','))
            return true;
    }
    return false;
}

/* What the host offers, in list.  1 when it asks for nothing at all and we are in. */
static int ask_methods(struct login *l, char *list, size_t room, struct err *e)
{
    struct connection *c = l->c;
    uint64_t deadline_ms = io_clock_ms() + l->o->timeout_ms;
    const char *text;
    int rc;

    list[0] = 0;
    for (;;) {
        text = libssh2_userauth_list(c->session, l->o->user, (unsigned)strlen(l->o->user));
        if (text != NULL)
            break;
        if (libssh2_userauth_authenticated(c->session) == 1)
            return 1;
        rc = libssh2_session_last_errno(c->session);
        if (rc != LIBSSH2_ERROR_EAGAIN)
            return session_error(c, rc, e, "asking for the ways to log in");
        if (pause_login(l, deadline_ms, e) != 0)
            return -1;
    }
    printable(text, strlen(text), list, room);
    return 0;
}

static void show_banner(struct login *l)
{
#if LIBSSH2_VERSION_NUM >= 0x010b00
    char *text = NULL;
    char line[1024];

    if (libssh2_userauth_banner(l->c->session, &text) != 0 || text == NULL)
        return;
    printable(text, strlen(text), line, sizeof line);
    session_info(l->o, "the host says: %s", line);
#else
    (void)l; /* libssh2 1.10 keeps the banner to itself */
#endif
}

static int refused(struct login *l, const char *list, struct err *e)
{
    if (l->rsa_refused && old_library())
        return err_set(
            e, ERR_AUTH,
            "login refused (the host offers %s); libssh2 %s signs with RSA keys by SHA-1 only, "
            "which OpenSSH 8.8 and later refuse: use an ECDSA key (ssh-keygen -t ecdsa), a "
            "password, or libssh2 1.11 or later",
            list, libssh2_version(0));
    if (l->key_attempts > 0)
        return err_set(
            e, ERR_AUTH,
            "login refused: %u keys were tried, and there is no password to try (the host offers "
            "%s)",
            l->key_attempts, list);
    return err_set(
        e, ERR_AUTH,
        "no way to log in: there is no key, no ssh-agent and no password for what the host "
        "offers (%s); give --password-file or --identity",
        list);
}

static enum outcome try_keys(struct login *l, const struct key_file *keys, size_t count,
                             struct err *e)
{
    enum outcome result = OUTCOME_REFUSED;

    /* The agent first: it needs no passphrase. */
    if ((l->o->methods & SSH_METHOD_AGENT) != 0)
        result = try_agent(l, keys, count, e);
    if ((l->o->methods & SSH_METHOD_KEY) == 0)
        return result;
    for (size_t i = 0; i < count && result == OUTCOME_REFUSED; i++) {
        if (l->key_attempts >= KEY_ATTEMPTS_MAX)
            break;
        /* Nobody asked for a default key: no question about its passphrase either. */
        if (keys[i].encrypted && l->o->identity_count == 0)
            continue;
        result = try_key(l, &keys[i], e);
    }
    return result;
}

static int try_all(struct login *l, const struct key_file *keys, size_t count, struct err *e)
{
    const struct ssh_options *o = l->o;
    bool can_ask = o->secret != NULL || o->ask != NULL;
    char list[256];
    bool password;
    bool interactive;
    int rc = ask_methods(l, list, sizeof list, e);

    if (rc != 0)
        return rc > 0 ? 0 : -1;
    show_banner(l);
    if (offered(list, "publickey"))
        switch (try_keys(l, keys, count, e)) {
        case OUTCOME_IN:
            return 0;
        case OUTCOME_ERROR:
            return -1;
        case OUTCOME_REFUSED:
            break;
        }
    password = offered(list, "password") && (o->methods & SSH_METHOD_PASSWORD) != 0;
    interactive =
        offered(list, "keyboard-interactive") && (o->methods & SSH_METHOD_INTERACTIVE) != 0;
    if (!can_ask || (!password && !interactive))
        return refused(l, list, e);
    if (fetch_secret(l, e) != 0)
        return -1;
    return password ? try_password(l, e) : try_interactive(l, e);
}

/* The user's own folder for keys, from the environment or the user database. */
static const char *home_folder(char *room, size_t room_bytes)
{
    const char *home = getenv("HOME");
    struct passwd entry;
    struct passwd *found = NULL;

    if (home != NULL && home[0] == '/')
        return home;
    if (getpwuid_r(getuid(), &entry, room, room_bytes, &found) != 0 || found == NULL)
        return NULL;
    return entry.pw_dir;
}

/* Default keys that are there and can be read; whatever is wrong with one is no error. */
static size_t default_keys(struct key_file *keys, char paths[][4096], const struct ssh_options *o)
{
    static const char *const names[] = { "id_ecdsa", "id_ed25519", "id_rsa" };
    char room[4096];
    const char *home = home_folder(room, sizeof room);
    size_t count = 0;

    for (size_t i = 0; home != NULL && i < ARRAY_COUNT(names); i++) {
        struct err why;

        if (snprintf(paths[count], 4096, "%s/.ssh/%s", home, names[i]) >= 4096)
            continue;
        if (key_file_read(&keys[count], paths[count], &why) == 0)
            count++;
        else if (why.os != ENOENT && why.os != ENOTDIR)
            session_info(o, "%s", why.text);
    }
    return count;
}

int auth_login(struct connection *c, const struct ssh_options *o, struct err *e)
{
    struct login l = { .c = c, .o = o };
    struct key_file keys[KEY_FILES_MAX] = { { 0 } };
    char paths[3][4096];
    size_t count = 0;
    int rc = -1;

    if (o->identity_count > KEY_FILES_MAX)
        return err_set(e, ERR_LIMIT, "more than %d key files", KEY_FILES_MAX);
    for (; count < o->identity_count; count++)
        if (key_file_read(&keys[count], o->identities[count], e) != 0)
            goto out;
    if (o->identity_count == 0 && o->default_identities)
        count = default_keys(keys, paths, o);
    rc = try_all(&l, keys, count, e);
out:
    secret_free(&l.secret);
    for (size_t i = 0; i < count; i++)
        key_file_free(&keys[i]);
    return rc;
}
