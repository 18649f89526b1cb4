// A ring buffer on the environment's libuv loop. Records are copied out of the ring into one buffer, and JavaScript is called
// once a batch: a call costs 20 times what copying a small record does.
#include "handle.h"
#include "register.h"

#include <cerrno>
#include <cstring>

#include <bpf/libbpf.h>
#include <uv.h>

namespace
{

struct Ring;

// What the event loop holds. It keeps the ring alive until that is closed, and outlives it until libuv has let go of the handle,
// which is never while the callback runs.
struct Poll {
	uv_poll_t handle;
	std::shared_ptr<Ring> ring;
	Napi::FunctionReference callback;
	std::unique_ptr<Napi::AsyncContext> context;
	napi_async_cleanup_hook_handle cleanup;
};

struct Ring {
	static const napi_type_tag tag;

	~Ring()
	{
		ring_buffer__free(ring);
	}

	void Stop()
	{
		if (!poll)
			return;
		Poll *stopping = poll;
		poll = nullptr;
		uv_close(reinterpret_cast<uv_handle_t *>(&stopping->handle), [](uv_handle_t *handle) {
			auto *poll = static_cast<Poll *>(handle->data);
			// Also tells an environment that is going down that it need not wait any longer.
			napi_remove_async_cleanup_hook(poll->cleanup);
			delete poll;
		});
		// May be the last reference to this.
		stopping->ring.reset();
	}

	std::shared_ptr<Map> map;
	ring_buffer *ring = nullptr;
	Poll *poll = nullptr;
	uint32_t limit = 0;
	std::vector<uint8_t> records; // each begins at a multiple of 8
	std::vector<uint32_t> sizes;
};

const napi_type_tag Ring::tag = { 0x6c1bbf5f72696e67, 0x28f94ad36bc14e05 };

int Take(void *context, void *data, size_t size)
{
	auto *ring = static_cast<Ring *>(context);
	const auto *bytes = static_cast<const uint8_t *>(data);
	ring->records.resize((ring->records.size() + 7) & ~size_t(7));
	ring->records.insert(ring->records.end(), bytes, bytes + size);
	ring->sizes.push_back(size);
	// A negative value stops libbpf after this record, which counts as consumed.
	return ring->sizes.size() >= ring->limit ? -ECANCELED : 0;
}

// Takes one batch off the ring and hands it to the callback, which may close the ring. What is left makes the poll fire again.
void Deliver(Poll *poll)
{
	const std::shared_ptr<Ring> ring = poll->ring;
	Napi::Env env = poll->callback.Env();
	Napi::HandleScope scope(env);
	ring_buffer__consume(ring->ring);
	if (ring->sizes.empty())
		return;
	const auto records = CopyOf(env, ring->records.data(), ring->records.size());
	const auto sizes = CopyOf(env, ring->sizes.data(), ring->sizes.size() * sizeof(uint32_t), napi_uint32_array);
	ring->records.clear();
	ring->sizes.clear();
	const napi_value arguments[] = { records, sizes };
	napi_value result;
	const napi_status status =
		napi_make_callback(env, *poll->context, env.Global(), poll->callback.Value(), 2, arguments, &result);
	napi_value exception;
	if (status == napi_pending_exception && napi_get_and_clear_last_exception(env, &exception) == napi_ok)
		napi_fatal_exception(env, exception);
}

// openRing(map, callback, limit): a handle or a negative errno. callback(records, sizes): Uint8Array, Uint32Array.
Napi::Value OpenRing(const Napi::CallbackInfo &info)
{
	Napi::Env env = info.Env();
	auto ring = std::make_shared<Ring>();
	ring->map = Held<Map>(info[0]);
	if (!ring->map)
		return Undefined(env);
	uv_loop_t *loop;
	if (!info[1].IsFunction() || napi_get_uv_event_loop(env, &loop) != napi_ok)
		return Number(env, -EINVAL);
	ring->ring = ring_buffer__new(ring->map->fd(), Take, ring.get(), nullptr);
	if (!ring->ring)
		return Number(env, -errno);
	ring->limit = Uint32(info[2]);
	auto poll = std::make_unique<Poll>();
	if (const int failed = uv_poll_init(loop, &poll->handle, ring_buffer__epoll_fd(ring->ring)))
		return Number(env, failed);
	poll->handle.data = poll.get();
	poll->ring = ring;
	poll->callback = Napi::Persistent(info[1].As<Napi::Function>());
	poll->context = std::make_unique<Napi::AsyncContext>(env, "libbpf-ts:RingBuffer");
	napi_add_async_cleanup_hook(
		env,
		[](napi_async_cleanup_hook_handle, void *data) {
			if (const std::shared_ptr<Ring> ring = static_cast<Poll *>(data)->ring)
				ring->Stop();
		},
		poll.get(), &poll->cleanup);
	uv_poll_start(&poll->handle, UV_READABLE,
		      [](uv_poll_t *handle, int, int) { Deliver(static_cast<Poll *>(handle->data)); });
	ring->poll = poll.release();
	return Wrap(env, ring);
}

// closeRing(ring): no callback comes after this.
Napi::Value CloseRing(const Napi::CallbackInfo &info)
{
	if (auto *box = Box<Ring>(info[0])) {
		if (const std::shared_ptr<Ring> ring = std::move(*box))
			ring->Stop();
	}
	return Undefined(info.Env());
}

} // namespace

void RegisterRingBuffer(Napi::Env env, Napi::Object exports)
{
	Register<OpenRing>(env, exports, "openRing");
	Register<CloseRing>(env, exports, "closeRing");
}
