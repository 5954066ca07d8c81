/*
 * http.c
 *		The HTTP client: libcurl behind submit, wait on one descriptor, collect.
 *
 * One epoll descriptor holds libcurl's sockets, a timerfd with libcurl's next
 * deadline and an eventfd for replies that are known without the network; the
 * caller waits on that one descriptor together with its latch.
 *
 * Nothing here throws, except http_perform when it is cancelled: an error that
 * longjmps through libcurl's frames leaves its handles in an undefined state.
 * Callbacks record what went wrong and return failure.
 */
#include "compat.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#ifndef FRONTEND
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
#endif

#include "http_internal.h"

#define HTTP_POOL_SIZE 8
#define HTTP_EVENTS 32

struct HttpClient
{
	CURLM *multi;
	int epoll_fd;
	int timer_fd;
	int event_fd;
	bool broken; /* epoll refused a socket */
	HttpTransfer *active;
	HttpTransfer *done; /* finished, oldest first */
	HttpTransfer *done_last;
	int in_flight; /* submitted and not collected */
	CURL *pool[HTTP_POOL_SIZE];
	int npool;
};

/*
 * libcurl's resolver runs in threads.  A thread inherits the signal mask of
 * the moment it is made, so with all signals blocked around libcurl it never
 * takes one that is meant for the server process.
 */
static void
block_signals(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* ----------------------------------------------------------------
 * What libcurl asks of the descriptor
 * ----------------------------------------------------------------
 */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	HttpClient *client = arg;
	struct epoll_event event = {0};
	int rc;

	if (what == CURL_POLL_REMOVE)
	{
		/* A closed descriptor has left the set by itself. */
		epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}

	event.data.fd = fd;
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;

	rc = epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	if (rc < 0 && errno == ENOENT)
		rc = epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	if (rc < 0)
	{
		client->broken = true;
		return -1;
	}
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	HttpClient *client = arg;
	struct itimerspec spec = {{0}};

	/* All zeroes disarm, so "at once" is one nanosecond. */
	if (timeout_ms == 0)
		spec.it_value.tv_nsec = 1;
	else if (timeout_ms > 0)
	{
		spec.it_value.tv_sec = timeout_ms / 1000;
		spec.it_value.tv_nsec = (timeout_ms % 1000) * 1000000L;
	}
	if (timerfd_settime(client->timer_fd, 0, &spec, NULL) < 0)
	{
		client->broken = true;
		return -1;
	}
	return 0;
}

/* ----------------------------------------------------------------
 * Transfers and their handles
 * ----------------------------------------------------------------
 */

static void
activate(HttpClient *client, HttpTransfer *transfer)
{
	transfer->prev = NULL;
	transfer->next = client->active;
	if (client->active != NULL)
		client->active->prev = transfer;
	client->active = transfer;
}

static void
deactivate(HttpClient *client, HttpTransfer *transfer)
{
	if (transfer->prev != NULL)
		transfer->prev->next = transfer->next;
	else
		client->active = transfer->next;
	if (transfer->next != NULL)
		transfer->next->prev = transfer->prev;
	transfer->prev = transfer->next = NULL;
}

static void
append_done(HttpClient *client, HttpTransfer *transfer)
{
	transfer->next = NULL;
	if (client->done_last != NULL)
		client->done_last->next = transfer;
	else
		client->done = transfer;
	client->done_last = transfer;
}

/* A handle that was used before keeps TLS sessions; connections are the multi's. */
static CURL *
take_handle(HttpClient *client)
{
	if (client->npool > 0)
		return client->pool[--client->npool];
	return curl_easy_init();
}

static void
give_handle(HttpClient *client, CURL *easy)
{
	if (easy == NULL)
		return;
	if (client->npool == HTTP_POOL_SIZE)
		curl_easy_cleanup(easy);
	else
	{
		curl_easy_reset(easy);
		client->pool[client->npool++] = easy;
	}
}

static void
finish(HttpClient *client, HttpTransfer *transfer, CURLcode code)
{
	http_reply_complete(transfer, code);
	curl_multi_remove_handle(client->multi, transfer->easy);
	give_handle(client, transfer->easy);
	transfer->easy = NULL;
	deactivate(client, transfer);
	append_done(client, transfer);
}

static void
finish_completed(HttpClient *client)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(client->multi, &left)) != NULL)
	{
		char *arg = NULL;
		CURL *easy = message->easy_handle;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &arg);
		finish(client, (HttpTransfer *) arg, code);
	}
}

/* ----------------------------------------------------------------
 * The interface
 * ----------------------------------------------------------------
 */

/* Once in a process, and never in the postmaster, whose children would share it. */
static bool
initialize_curl(void)
{
	static bool initialized = false;
	sigset_t saved;

	if (!initialized)
	{
		block_signals(&saved);
		initialized = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
		restore_signals(&saved);
	}
	return initialized;
}

static bool
watch(HttpClient *client, int fd)
{
	struct epoll_event event = {0};

	event.events = EPOLLIN;
	event.data.fd = fd;
	return fd >= 0 && epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

HttpClient *
http_create(void)
{
	HttpClient *client;

	if (!initialize_curl())
		return NULL;
	client = calloc(1, sizeof(HttpClient));
	if (client == NULL)
		return NULL;
	client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	client->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	client->multi = curl_multi_init();
	if (client->epoll_fd < 0 || client->multi == NULL || !watch(client, client->timer_fd) ||
		!watch(client, client->event_fd) ||
		curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
		curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client) != CURLM_OK ||
		curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer) != CURLM_OK ||
		curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client) != CURLM_OK)
	{
		http_destroy(client);
		return NULL;
	}
	return client;
}

void
http_destroy(HttpClient *client)
{
	HttpTransfer *transfer;
	sigset_t saved;

	if (client == NULL)
		return;
	block_signals(&saved);
	while ((transfer = client->active) != NULL)
	{
		deactivate(client, transfer);
		curl_multi_remove_handle(client->multi, transfer->easy);
		curl_easy_cleanup(transfer->easy);
		http_transfer_free(transfer);
	}
	while ((transfer = client->done) != NULL)
	{
		client->done = transfer->next;
		http_transfer_free(transfer);
	}
	while (client->npool > 0)
		curl_easy_cleanup(client->pool[--client->npool]);
	if (client->multi != NULL)
		curl_multi_cleanup(client->multi);
	restore_signals(&saved);
	if (client->timer_fd >= 0)
		close(client->timer_fd);
	if (client->event_fd >= 0)
		close(client->event_fd);
	if (client->epoll_fd >= 0)
		close(client->epoll_fd);
	free(client);
}

/* A reply known without the network still has to end the caller's wait. */
static void
refuse(HttpClient *client, HttpTransfer *transfer, const char *reason)
{
	uint64 one = 1;

	http_reply_refuse(transfer, reason);
	append_done(client, transfer);
	client->in_flight++;
	if (write(client->event_fd, &one, sizeof(one)) < 0)
		client->broken = true;
}

bool
http_submit(HttpClient *client, const HttpRequest *request)
{
	HttpTransfer *transfer = http_transfer_create(request);
	const char *reason;
	sigset_t saved;
	bool started;

	if (transfer == NULL)
		return false;
	reason = http_request_refused(request->url);
	if (reason != NULL)
	{
		refuse(client, transfer, reason);
		return true;
	}

	block_signals(&saved);
	transfer->easy = take_handle(client);
	started = transfer->easy != NULL && http_transfer_prepare(transfer, request) &&
			  http_reply_prepare(transfer) &&
			  curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, (char *) transfer) == CURLE_OK &&
			  curl_multi_add_handle(client->multi, transfer->easy) == CURLM_OK;
	if (!started)
		give_handle(client, transfer->easy);
	restore_signals(&saved);

	if (!started)
	{
		http_transfer_free(transfer);
		return false;
	}
	activate(client, transfer);
	client->in_flight++;
	return true;
}

int
http_wait_fd(HttpClient *client)
{
	return client->epoll_fd;
}

static void
drain(int fd)
{
	uint64 count;

	if (read(fd, &count, sizeof(count)) < 0)
		return; /* not due, or due again soon */
}

static void
handle_event(HttpClient *client, const struct epoll_event *event)
{
	int fd = event->data.fd;
	int running;
	int mask = 0;

	if (fd == client->event_fd)
	{
		drain(fd);
		return;
	}
	if (fd == client->timer_fd)
	{
		drain(fd);
		curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		return;
	}
	if (event->events & EPOLLIN)
		mask |= CURL_CSELECT_IN;
	if (event->events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (event->events & (EPOLLERR | EPOLLHUP))
		mask |= CURL_CSELECT_ERR;
	curl_multi_socket_action(client->multi, fd, mask, &running);
}

/*
 * Without its descriptor a request would hang for ever: poll all of them.
 * Happens only when the kernel refuses (out of memory or of watches).
 */
static void
pump_broken(HttpClient *client)
{
	struct itimerspec spec = {{0}};
	int running;

	client->broken = false;
	curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	spec.it_value.tv_nsec = 100 * 1000 * 1000L;
	if (client->broken)
		timerfd_settime(client->timer_fd, 0, &spec, NULL);
}

void
http_pump(HttpClient *client)
{
	struct epoll_event events[HTTP_EVENTS];
	sigset_t saved;
	int n;
	int i;

	block_signals(&saved);
	n = epoll_wait(client->epoll_fd, events, HTTP_EVENTS, 0);
	for (i = 0; i < n; i++)
		handle_event(client, &events[i]);
	if (client->broken)
		pump_broken(client);
	finish_completed(client);
	restore_signals(&saved);
}

HttpReply *
http_collect(HttpClient *client)
{
	HttpTransfer *transfer = client->done;
	HttpReply *reply;

	if (transfer == NULL)
		return NULL;
	client->done = transfer->next;
	if (client->done == NULL)
		client->done_last = NULL;
	client->in_flight--;
	reply = transfer->reply;
	transfer->reply = NULL;
	http_transfer_free(transfer);
	return reply;
}

int
http_in_flight(HttpClient *client)
{
	return client->in_flight;
}

#ifndef FRONTEND
HttpReply *
http_perform(HttpClient *client, const HttpRequest *request)
{
	static uint32 wait_event = 0;
	HttpReply *reply;

	if (wait_event == 0)
		wait_event = NAMED_WAIT_EVENT("SfsyncSalesforce");
	if (!http_submit(client, request))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not start a request to Salesforce"),
						errdetail("Out of memory.")));
	while ((reply = http_collect(client)) == NULL)
	{
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
								 http_wait_fd(client), -1, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		http_pump(client);
	}
	return reply;
}
#endif
