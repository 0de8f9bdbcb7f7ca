// Only this file, and users of Loop::context(), use Boost.Asio.
#include <csignal>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include <daemon/loop.hpp>

namespace ipcfs::daemon {
namespace asio = boost::asio;

struct Loop::State {
    asio::io_context context{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
    asio::signal_set signals{context};
    std::function<void(int)> handle;

    void wait() {
        signals.async_wait([this](const boost::system::error_code& failed, int signal) {
            if (failed) return;
            wait();  // first: a second signal may abort the handling of the first
            handle(signal);
        });
    }
};

Loop::Loop() : state_(std::make_unique<State>()) {}
Loop::~Loop() = default;

void Loop::on_signal(std::function<void(int)> handle) {
    state_->handle = std::move(handle);
    for (int signal : {SIGTERM, SIGINT, SIGHUP}) state_->signals.add(signal);
    state_->wait();
}

void Loop::post(std::function<void()> work) {
    asio::post(state_->context, std::move(work));
}

void Loop::after(Nanos delay, std::function<void()> work) {
    auto timer =
        std::make_shared<asio::steady_timer>(state_->context, std::chrono::nanoseconds(delay));
    timer->async_wait([timer, work = std::move(work)](const boost::system::error_code& failed) {
        if (!failed) work();
    });
}

void Loop::run() {
    state_->context.run();
}

void Loop::stop() {
    state_->context.stop();
}

asio::io_context& Loop::context() {
    return state_->context;
}

struct TimerPump::State : std::enable_shared_from_this<State> {
    State(asio::io_context& io, const Clock& time) : context(io), clock(time), timer(io) {}

    asio::io_context& context;
    const Clock& clock;
    std::atomic<bool> kicked{false};
    // The members below belong to the loop's thread.
    asio::steady_timer timer;
    std::function<std::optional<Nanos>()> next;
    std::function<void(Nanos)> run;

    void kick() {
        if (kicked.exchange(true)) return;
        asio::post(context, [self = shared_from_this()] {
            // Clear before reading the queue: a deadline armed later kicks again.
            self->kicked.store(false);
            self->arm();
        });
    }

    void arm() {
        if (!next) return;
        auto deadline = next();
        if (!deadline) {
            timer.cancel();
            return;
        }
        // Setting the expiry cancels the previous wait. One that has fired already reads the queue
        // again, which does no harm.
        const Nanos delay = *deadline - clock.monotonic();
        timer.expires_after(std::chrono::nanoseconds(delay > 0 ? delay : 0));
        timer.async_wait([self = shared_from_this()](const boost::system::error_code& failed) {
            if (failed || !self->run) return;
            self->run(self->clock.monotonic());
            self->arm();
        });
    }
};

TimerPump::TimerPump(Loop& loop, const Clock& clock)
    : state_(std::make_shared<State>(loop.context(), clock)) {}

TimerPump::~TimerPump() {
    detach();
}

std::function<void()> TimerPump::kick() const {
    return [state = state_] { state->kick(); };
}

void TimerPump::attach(std::function<std::optional<Nanos>()> next, std::function<void(Nanos)> run) {
    state_->next = std::move(next);
    state_->run = std::move(run);
    state_->kick();
}

void TimerPump::detach() {
    state_->next = nullptr;
    state_->run = nullptr;
    state_->timer.cancel();
}

}  // namespace ipcfs::daemon
