// FileSending: a file on its way over a ByteTransport: who sends it, as far as the transport must know.
//
// Made, it holds the transport: that receives nothing, and Write throws (C-WR-08); its end gives the transport back. A
// transport that ends or closes first lets go of it.
//
// Life:      made -> (WantRoom -> OnRoom*)* -> destroyed | OnLost -> destroyed
// Threading: the loop's.
#ifndef TROUPE_NET_INTERNAL_FILE_SENDING_H_
#define TROUPE_NET_INTERNAL_FILE_SENDING_H_

namespace troupe::internal {

class ByteTransport;

class FileSending {
 public:
  FileSending(const FileSending&) = delete;
  FileSending& operator=(const FileSending&) = delete;

 protected:
  // REQUIRES: the transport may send a file (ByteTransport::CheckMaySendFile).
  explicit FileSending(ByteTransport& transport);
  ~FileSending();
  // To be called once, by itself or WantRoom(true), when the object is complete: OnLost may come inside it. Nothing is
  // received from then on.
  void Begin();

  // OnRoom comes while the transport's buffer is empty and its device may take more; from the loop.
  void WantRoom(bool wanted);
  virtual void OnRoom() {}
  // The connection ends, or closes; ConnectionLost is still to come. transport() is null after this.
  virtual void OnLost() = 0;
  // Null: lost.
  ByteTransport* transport() const { return transport_; }

 private:
  friend class ByteTransport;

  ByteTransport* transport_;
  bool wants_room_ = false;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_FILE_SENDING_H_
