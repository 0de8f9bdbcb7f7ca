// Completions that wait for an Lsn, and those that are due. Guarded by its owner's lock, except
// `call`, which runs without one.
#pragma once

#include <store/store.hpp>

#include <base/burst.hpp>

namespace ipcfs::store {

class Waiting {
public:
    bool empty() const noexcept { return first_ == nullptr; }

    void add(Lsn lsn, Completion& who) noexcept {
        who.lsn_ = lsn;
        append(who);
    }

    // Takes out those that wait for something in (after, up_to], in the order they came.
    Waiting take(Lsn after, Lsn up_to) noexcept {
        Waiting taken;
        Waiting kept;
        for (Completion* each = first_; each != nullptr;) {
            Completion& who = *each;
            each = who.next_;
            (who.lsn_ > after && who.lsn_ <= up_to ? taken : kept).append(who);
        }
        *this = kept;
        return taken;
    }

    // Whether one of them waits for exactly `lsn`.
    template <class F>
    void for_each(F&& use) const {
        for (const Completion* each = first_; each != nullptr; each = each->next_) use(each->lsn_);
    }

    void join(Waiting other) noexcept {
        if (other.empty()) return;
        (first_ == nullptr ? first_ : last_->next_) = other.first_;
        last_ = other.last_;
    }

    // Calls all of them, each once, and forgets them. A completion may be gone after its call.
    void call(int error) noexcept {
        const Burst burst;
        Completion* each = first_;
        first_ = last_ = nullptr;
        while (each != nullptr) {
            Completion& who = *each;
            each = who.next_;
            who.durable(error);
        }
    }

private:
    void append(Completion& who) noexcept {
        who.next_ = nullptr;
        (first_ == nullptr ? first_ : last_->next_) = &who;
        last_ = &who;
    }

    Completion* first_ = nullptr;
    Completion* last_ = nullptr;
};

}  // namespace ipcfs::store
