// Completions that wait for an Lsn, and those that are due. Guarded by its owner's lock, except
// `call`, which runs without one.
#pragma once

#include <store/store.hpp>

#include <base/burst.hpp>

namespace ipcfs::store {

class Waiting {
public:
    bool empty() const noexcept { return list_.empty(); }

    void add(Lsn lsn, Completion& who) noexcept {
        who.lsn_ = lsn;
        list_.push_back(who);
    }

    // Takes out those that wait for something in (after, up_to], in the order they came.
    Waiting take(Lsn after, Lsn up_to) noexcept {
        Waiting taken;
        list_.remove_and_dispose_if(
            [&](const Completion& each) { return each.lsn_ > after && each.lsn_ <= up_to; },
            [&](Completion* each) { taken.list_.push_back(*each); });
        return taken;
    }

    template <class F>
    void for_each(F&& use) const {
        for (const Completion& each : list_) use(each.lsn_);
    }

    void join(Waiting other) noexcept { list_.splice(list_.end(), other.list_); }

    // Calls all of them, each once, and forgets them. A completion may be gone after its call.
    void call(int error) noexcept {
        const Burst burst;
        while (!list_.empty()) {
            Completion& first = list_.front();
            list_.pop_front();
            first.durable(error);
        }
    }

private:
    boost::intrusive::slist<Completion, boost::intrusive::cache_last<true>,
                            boost::intrusive::constant_time_size<false>>
        list_;
};

}  // namespace ipcfs::store
