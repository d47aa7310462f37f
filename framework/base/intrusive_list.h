// IntrusiveList: a doubly linked list whose links live in its elements.
//
// Use it where an element must leave from the middle in O(1) and nothing may allocate: ready queues, waiters, open
// connections. An element stands in at most one list per Tag, unlinks itself when destroyed, and is not owned.
//
// Threading: one thread.     Lifetime: a list may be destroyed with elements in it; they are unlinked.
#ifndef TROUPE_BASE_INTRUSIVE_LIST_H_
#define TROUPE_BASE_INTRUSIVE_LIST_H_

#include <cstddef>

namespace troupe {

template <class Tag = void>
class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { Unlink(); }

  bool linked() const { return next_ != nullptr; }
  void Unlink() {
    if (next_ == nullptr) return;
    prev_->next_ = next_;
    next_->prev_ = prev_;
    prev_ = next_ = nullptr;
  }

 private:
  template <class, class>
  friend class IntrusiveList;
  ListNode* prev_ = nullptr;
  ListNode* next_ = nullptr;
};

// T derives from ListNode<Tag>.
template <class T, class Tag = void>
class IntrusiveList {
  using Node = ListNode<Tag>;

 public:
  IntrusiveList() { Clear(); }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    while (!empty()) PopFront();
    head_.prev_ = head_.next_ = nullptr;
  }

  bool empty() const { return head_.next_ == &head_; }
  T& front() { return *static_cast<T*>(head_.next_); }
  T& back() { return *static_cast<T*>(head_.prev_); }

  // REQUIRES: element is not in a list.
  void PushBack(T& element) { InsertBefore(head_, element); }
  void PushFront(T& element) { InsertBefore(*head_.next_, element); }

  // REQUIRES: !empty().
  T& PopFront() {
    T& first = front();
    static_cast<Node&>(first).Unlink();
    return first;
  }

  // Moves all of `other` behind (before) what is here; `other` is empty afterwards.
  void SpliceBack(IntrusiveList& other) { Splice(head_, other); }
  void SpliceFront(IntrusiveList& other) { Splice(*head_.next_, other); }

  // Iteration; the element under the iterator may not be removed, others may.
  class Iterator {
   public:
    explicit Iterator(Node* at) : at_(at) {}
    T& operator*() const { return *static_cast<T*>(at_); }
    T* operator->() const { return static_cast<T*>(at_); }
    Iterator& operator++() {
      at_ = at_->next_;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return at_ != other.at_; }

   private:
    Node* at_;
  };
  Iterator begin() { return Iterator(head_.next_); }
  Iterator end() { return Iterator(&head_); }

 private:
  void Clear() { head_.prev_ = head_.next_ = &head_; }
  static void InsertBefore(Node& at, Node& element) {
    element.prev_ = at.prev_;
    element.next_ = &at;
    at.prev_->next_ = &element;
    at.prev_ = &element;
  }
  static void Splice(Node& at, IntrusiveList& other) {
    if (other.empty()) return;
    Node* first = other.head_.next_;
    Node* last = other.head_.prev_;
    first->prev_ = at.prev_;
    at.prev_->next_ = first;
    last->next_ = &at;
    at.prev_ = last;
    other.Clear();
  }

  Node head_;
};

}  // namespace troupe

#endif  // TROUPE_BASE_INTRUSIVE_LIST_H_
